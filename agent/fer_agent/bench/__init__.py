"""How fast this device is: networks alone, the pipeline stage by stage, and for minutes on end."""
