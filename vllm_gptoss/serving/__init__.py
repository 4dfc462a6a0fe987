"""What the server's requests and answers need beside rendering and parsing."""
