//! Service registry.
