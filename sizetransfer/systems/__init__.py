"""Physical systems, one folder each; each registers itself as a third party's distribution would."""
