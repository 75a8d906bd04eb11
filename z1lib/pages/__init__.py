"""What people look at: terminal, demo, explorer, report, and what is published."""
