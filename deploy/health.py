"""Whether a process takes part: `python -m deploy.health HOST:PORT [SUPERLINK]`."""

import sys

import grpc
import psutil
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub


def healthy(address: str, seconds: float = 3.0) -> bool:
    """Whether the gRPC health service at ``address`` says that it serves."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def connected(address: str, superlink: str) -> bool:
    """Whether the process whose health is at ``address`` has a connection to its SuperLink.

    A SuperNode that the SuperLink refuses ends, so one that is connected takes part. The process
    must be this account's, on this machine.
    """
    own, other = (int(place.rpartition(":")[2]) for place in (address, superlink))
    every = psutil.net_connections("tcp")
    pids = {c.pid for c in every if c.status == psutil.CONN_LISTEN and c.laddr.port == own}
    return any(
        c.pid in pids and c.status == psutil.CONN_ESTABLISHED and c.raddr and c.raddr.port == other
        for c in every
        if c.pid is not None
    )


def takes_part(address: str, superlink: str = "") -> bool:
    """Whether a process serves and, where it has a SuperLink, is connected to it."""
    return healthy(address) and (not superlink or connected(address, superlink))


if __name__ == "__main__":
    sys.exit(0 if takes_part(*sys.argv[1:]) else 1)
