"""Results as terminal tables, JSON, JUnit and HTML."""
