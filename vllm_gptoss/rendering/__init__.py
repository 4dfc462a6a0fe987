"""What a request says, as harmony text: the prompt carries all of it."""
