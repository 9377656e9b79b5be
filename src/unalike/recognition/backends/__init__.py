"""Where galleries are kept: a file or a PostgreSQL database, behind one protocol and one suite of conformance tests."""
