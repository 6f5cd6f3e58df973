"""What people look at: the demo's page and the comparison's, their plots, tables and words. Nothing is trained here."""
