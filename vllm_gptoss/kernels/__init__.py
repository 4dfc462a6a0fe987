"""One file an operation: its mathematics, its specification `<op>_ref` in torch, later its kernel."""
