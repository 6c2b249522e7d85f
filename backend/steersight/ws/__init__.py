"""One WebSocket connection: `handshake.py` checks it, `connection.py` talks on it."""
