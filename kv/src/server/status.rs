//! The HTTP status port: `/metrics`, `/status`, `/config`.
