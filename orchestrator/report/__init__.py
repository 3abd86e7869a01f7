"""The edge to the report: JSON lines written and read, and what people are shown of them."""
