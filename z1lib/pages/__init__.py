"""What people look at: demo, explorer, report, and what is published."""
