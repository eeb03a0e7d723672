"""Starts the real parts (shardd, Pushgateway, Consul, Prometheus) on loopback and talks to them.

A test asks for the fixture `lab` and starts what it needs from it; the lab stops it all, in reverse order, and shows
the logs when the test failed. Every process has a loopback address of its own, so tests share no port.
"""
