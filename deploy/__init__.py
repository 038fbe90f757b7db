"""From a folder of certificates and keys to a running federation, on one machine or on many."""
