"""The way of a frame: records, ports and the stages between camera and publisher."""
