"""What tests share: small networks, drawings, stand-ins for servers and devices, the command line in a process."""
