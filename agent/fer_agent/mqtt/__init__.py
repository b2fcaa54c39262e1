"""MQTT: messages and payloads, the connection, the session, its queue and the publisher."""
