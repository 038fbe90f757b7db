"""Sums that the server learns while each node's part of them stays hidden: SecAgg+.

Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead" (CCS 2020), after Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning" (CCS 2017). Key agreement, encryption and secret sharing are
Flower's; masks are ChaCha20 of the package `cryptography`.
"""
