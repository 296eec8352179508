"""Self-contained HTML pages with tables, charts and pictures, readable without a network."""
