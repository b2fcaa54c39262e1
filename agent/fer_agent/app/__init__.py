"""From a configuration to a running agent."""
