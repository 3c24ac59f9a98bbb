"""What `scripts/compare` measures."""

from dataclasses import dataclass, field


@dataclass
class Case:
    name: str
    what: str
    path: str = "/b/1024"
    # Connections and requests per second (0: saturation) for each worker of the proxy.
    connections: int = 64
    rate: int = 0
    # Further options of the load generator.
    load: list = field(default_factory=list)
    idle: int = 0
    tls: bool = False
    # Measured with h2load instead of pace.
    http2: bool = False
    # The HTTP/2 endpoint echoes messages and sends trailers, as a gRPC server does.
    grpc: bool = False
    # Bytes that the proxy only passes on.
    tcp: bool = False
    # Datagrams, measured with scripts/measure/datagrams.py.
    udp: bool = False
    # The case that does the same without the policy. Each run has one of it beside it, and the table has the ratio.
    base: str = ""
    # Proxies that cannot do this.
    without: tuple = ()


ACCEPTS_GZIP = ["--header", "Accept-Encoding: gzip"]
NO_TOKENS = ("nginx", "h2o")
NEW = ["--new-connections"]
H2 = {"connections": 32, "http2": True}
H2_LOAD = ["-m", "32"]
GRPC_LOAD = [*H2_LOAD, "-d", "{work}/call", "-H", "te: trailers", "-H", "content-type: application/grpc"]
CASES = [
    Case("keepalive", "1 KiB responses, 64 keep-alive connections, saturation"),
    Case("rate5000", "1 KiB responses, 64 connections, 5,000 requests/s", rate=5_000),
    Case("rate15000", "1 KiB responses, 64 connections, 15,000 requests/s", rate=15_000),
    Case("body64k", "64 KiB responses, 64 connections, saturation", path="/b/65536"),
    Case("body1m", "1 MiB responses, 16 connections, saturation", path="/b/1048576", connections=16),
    Case("upload64k", "64 KiB uploads, 64 connections, saturation", load=["--upload", "65536"]),
    Case("connect", "1 KiB responses, a new connection for each request", load=NEW),
    Case("idle", "1 KiB responses, 64 connections, with 10,000 idle connections", idle=10_000),
    Case("tls", "1 KiB responses over TLS 1.3, 64 keep-alive connections, saturation", tls=True),
    Case("tls64k", "64 KiB responses over TLS 1.3, 64 connections, saturation", path="/b/65536", tls=True),
    Case("handshake", "1 KiB responses, a full TLS 1.3 handshake (P-256) for each", load=NEW, tls=True),
    Case("resume", "1 KiB responses, a resumed TLS 1.3 handshake for each", load=[*NEW, "--resume"], tls=True),
    Case("idletls", "1 KiB responses over TLS, with 10,000 idle TLS connections", idle=10_000, tls=True),
    Case("h2tls", "1 KiB responses over HTTP/2 and TLS, from an HTTP/1.1 endpoint, 32 connections x 32 streams", load=H2_LOAD, tls=True, **H2),
    Case("h2h2", "1 KiB responses over HTTP/2 without TLS on both sides, 32 connections x 32 streams", path="/h2/b/1024", load=H2_LOAD, **H2),
    Case("headers", "as keepalive, with 3 fields set in requests and 2 in answers", path="/headers/b/1024", base="keepalive", without=("h2o",)),
    Case("limit", "as keepalive, with a rate limit per client address that is never reached", path="/limit/b/1024", base="keepalive", without=("h2o",)),
    Case("token", "as keepalive, with a token that no policy reads", load=["--in-turn", "{work}/one"]),
    Case("jwt", "as token, with the same RS256 token verified", path="/jwt/b/1024", load=["--in-turn", "{work}/one"], base="token", without=NO_TOKENS),
    Case("tokens", "as keepalive, with 1,000 tokens in turn that no policy reads", load=["--in-turn", "{work}/tokens"]),
    Case("jwt1000", "as tokens, with 1,000 RS256 tokens in turn verified", path="/jwt/b/1024", load=["--in-turn", "{work}/tokens"], base="tokens", without=NO_TOKENS),
    Case("text", "16 KiB of text, 64 keep-alive connections, saturation", path="/t/16384", load=ACCEPTS_GZIP),
    Case("compress", "as text, compressed by gzip at level 5", path="/compress/t/16384", load=ACCEPTS_GZIP, base="text", without=("h2o",)),
    Case("tcp", "as body1m, passed on as TCP without HTTP", path="/b/1048576", connections=16, tcp=True, without=("envoy", "h2o")),
    Case("tcp1k", "as keepalive, passed on as TCP without HTTP", tcp=True, without=("envoy", "h2o")),
    Case("udp", "datagrams of 100 bytes there and back, 64 flows, saturation", udp=True, without=("haproxy", "envoy", "h2o")),
    Case("udptrain", "trains of 16 datagrams of 1,200 bytes there and back, 64 flows, as QUIC libraries send", load=["--train"], udp=True, without=("haproxy", "envoy", "h2o")),
    Case("grpc", "unary gRPC calls with messages of 100 bytes, without TLS, 32 connections x 32 streams", path="/h2/call", load=GRPC_LOAD, grpc=True, **H2),
    Case("h2h2post", "as h2h2, with POST and a body of 128 bytes", path="/h2/b/1024", load=[*H2_LOAD, "-d", "{work}/message"], **H2),
]


def find(name):
    return next((case for case in CASES if case.name == name), None)
