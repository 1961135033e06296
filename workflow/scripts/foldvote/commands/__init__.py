"""Questions a person asks at the console; nothing here makes a result."""
