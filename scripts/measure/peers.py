"""The proxies to compare: where to find each one, its configuration, and how to start it.

All proxies do the same work: HTTP/1.1 with keep-alive, or HTTP/2 on both sides (the endpoint below /h2/ speaks HTTP/2). They
set X-Forwarded-For, -Proto and -Host, write no access log, and have limits that no case reaches. The options are those with
which a proxy needs the least CPU in these cases; notes explain them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

NGINX = """
daemon off;
user root;
worker_processes 1;
error_log stderr error;
pid {work}/nginx.pid;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    upstream origin {{
        server 127.0.0.1:{origin};
        # As many as the other proxies keep.
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    upstream h2_origin {{
        server 127.0.0.1:{h2_origin};
        # nginx does not share connections, so it needs one for each concurrent request.
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        listen 127.0.0.1:{tls_port} ssl http2 backlog=16384;
        listen 127.0.0.1:{h2c_port} http2 backlog=16384;
        ssl_certificate {work}/cert.pem;
        ssl_certificate_key {work}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            # Streams in both directions without disk, in buffers that stay in the CPU cache.
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffer_size 16k;
            proxy_buffers 4 32k;
            proxy_busy_buffers_size 64k;
            client_body_buffer_size 64k;
            client_max_body_size 0;
        }}
        # nginx speaks HTTP/2 to endpoints only through this module.
        location /h2/ {{
            grpc_pass grpc://h2_origin;
            grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            grpc_set_header X-Forwarded-Proto $scheme;
            grpc_set_header X-Forwarded-Host $http_host;
            client_max_body_size 0;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn {connections}
    # HAProxy would ask for two files per connection, but idle connections need one.
    no strict-limits
    nbthread 1
    # Otherwise it drops idle endpoint connections when clients hold a quarter of the files.
    tune.pool-low-fd-ratio 95
    tune.pool-high-fd-ratio 99
defaults
    mode http
    maxconn {connections}
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    http-reuse always
    # Splicing bodies halves the cost of a large response.
    option splice-response
    option splice-request
frontend edge
    bind 127.0.0.1:{port} backlog 16384
    bind 127.0.0.1:{tls_port} backlog 16384 ssl crt {work}/both.pem alpn h2,http/1.1
    bind 127.0.0.1:{h2c_port} backlog 16384 proto h2
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    use_backend h2_origin if {{ path_beg /h2/ }}
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
backend h2_origin
    server origin 127.0.0.1:{h2_origin} proto h2
"""

# Version 2.3, because 2.2 in Debian cannot speak HTTP/2 to endpoints.
H2O = """
num-threads: 1
user: root
max-connections: {connections}
http1-request-timeout: 300
http2-idle-timeout: 300
proxy.timeout.keepalive: 300000
proxy.preserve-host: ON
hosts:
  default:
    listen:
      - host: 127.0.0.1
        port: {port}
      - host: 127.0.0.1
        port: {h2c_port}
      - host: 127.0.0.1
        port: {tls_port}
        ssl:
          certificate-file: {work}/cert.pem
          key-file: {work}/key.pem
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:{origin}/"
      "/h2/":
        proxy.reverse.url: "http://127.0.0.1:{h2_origin}/h2/"
        proxy.http2.ratio: 100
        proxy.http2.force-cleartext: ON
"""

WEIR = """
cores = "{core}"

[listen."127.0.0.1:{port}"]

[listen."127.0.0.1:{tls_port}"]
tls = {{ cert = "{work}/cert.pem", key = "{work}/key.pem" }}

[listen."127.0.0.1:{h2c_port}"]

[upstream.origin]
servers = ["127.0.0.1:{origin}"]

[upstream.h2_origin]
servers = ["h2c://127.0.0.1:{h2_origin}"]

[[route]]
match = "/h2/*"
to = "h2_origin"

[[route]]
match = "/*"
to = "origin"
"""


@dataclass
class Peer:
    name: str
    config: str
    suffix: str
    command: Callable[[str, Path], list]
    check: Callable[[str, Path], list]
    how_to_get: str
    default: str = ""

    def find(self, chosen):
        """Returns the program: the one from the command line, a default path, or one on PATH."""
        if self.name in chosen:
            return chosen[self.name] if Path(chosen[self.name]).is_file() else None
        if self.default:
            return self.default if Path(self.default).is_file() else None
        return shutil.which(self.name)

    def write_config(self, work, **values):
        path = work / f"{self.name}.{self.suffix}"
        path.write_text(self.config.format(work=work, **values))
        return path


def table(root):
    return [
        Peer(
            name="nginx",
            config=NGINX,
            suffix="conf",
            command=lambda program, config: [program, "-c", str(config), "-e", "stderr"],
            check=lambda program, config: [program, "-v"],
            how_to_get="scripts/compare --install",
        ),
        Peer(
            name="haproxy",
            config=HAPROXY,
            suffix="cfg",
            command=lambda program, config: [program, "-db", "-f", str(config)],
            check=lambda program, config: [program, "-v"],
            how_to_get="scripts/compare --install",
        ),
        Peer(
            name="h2o",
            config=H2O,
            suffix="yaml",
            command=lambda program, config: [program, "-m", "worker", "-c", str(config)],
            check=lambda program, config: [program, "--version"],
            how_to_get="its sources, then --bin h2o=PATH",
        ),
        Peer(
            name="weir",
            config=WEIR,
            suffix="toml",
            command=lambda program, config: [program, "run", str(config)],
            check=lambda program, config: [program, "--version"],
            how_to_get="cargo build --release",
            default=str(root / "target/release/weir"),
        ),
    ]
