"""Where galleries are kept: a file, PostgreSQL or Milvus, behind one protocol and one suite of conformance tests."""
