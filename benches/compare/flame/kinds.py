"""What kind of work a function is, told by its name."""

import re

from flame.stacks import KERNEL

KINDS = {
    "kernel": "#e8a33d", "TLS": "#8e7cc3", "HTTP": "#5b8fd6", "Pillion": "#d9573f", "Tokio": "#4fa58a",
    "allocator": "#c06c9b", "copies": "#a9a24a", "other": "#9a9a9a",
}
"""With the colour of each."""
_PREFIXES = (
    ("TLS", ("rustls", "tokio_rustls", "aws_lc_rs", "webpki")),
    ("HTTP", ("hyper", "hyper_util", "h2", "http", "httparse", "http_body", "http_body_util",
              "bytes", "slab")),
    ("Pillion", ("pillion_proxy", "pillion_wire", "pillion_control_plane", "pillion_cli", "pillion")),
    ("Tokio", ("tokio", "tokio_util", "mio", "futures_util", "futures_core", "futures_channel")),
)
_CRATES = {crate: kind for kind, crates in _PREFIXES for crate in crates}
_ALLOCATOR = re.compile(r"^_{0,2}(mi_|_mi_|malloc|free|realloc|calloc|rust_alloc|rdl_alloc|rg_)")
_COPIES = re.compile(r"^_{0,2}(GI_+)?mem(cpy|move|set|cmp|chr)")
_TLS_IN_C = re.compile(r"aws_lc|aead|aes|gcm|init_iv|sha256|sha512|x25519|mlkem|ecp_|p256|bignum|bn_", re.IGNORECASE)


def kind_of(name):
    """The kind of the function with this name."""
    if name.endswith(KERNEL):
        return "kernel"
    if "::" in name:
        # `<crate::Type as crate::Trait>::method` by the type, else by the trait; drops by what is dropped.
        path = name if name.startswith("core::ptr::drop_in_place") else name.split(">::")[0]
        crates = re.findall(r"(?:^| as |<)[<&]*(\w+)::", path)
        return next((_CRATES[crate] for crate in crates if crate in _CRATES), "other")
    if _ALLOCATOR.match(name):
        return "allocator"
    if _COPIES.match(name):
        return "copies"
    return "TLS" if _TLS_IN_C.search(name) else "other"
