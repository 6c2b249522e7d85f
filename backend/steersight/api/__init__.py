"""What the server does over HTTP beside its sockets; one file per thing it is about."""
