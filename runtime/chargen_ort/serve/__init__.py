"""The server: many users of small models over HTTP, all of whose texts are written in one batch."""
