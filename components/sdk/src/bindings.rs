//! Bindings generated from `/wit`, once for every service.
//!
//! Imports come from the world `platform`; each kind of export has a world and an `export!` macro of its own, so that
//! a component has only what it asks for in [`export!`](crate::export). On native targets every host call panics.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "exprsn:service/platform",
    generate_all,
    generate_unused_types: true,
});

/// The world `http-service`.
pub mod http_service {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "exprsn:service/http-service",
        runtime_path: "exprsn_sdk::wit_bindgen::rt",
        default_bindings_module: "exprsn_sdk::bindings::http_service",
        pub_export_macro: true,
        with: {
            "wasi:http/types@0.3.0": crate::bindings::wasi::http::types,
            "wasi:clocks/types@0.3.0": crate::bindings::wasi::clocks::types,
        },
    });
}

/// The world `job-worker`.
pub mod job_worker {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "exprsn:service/job-worker",
        runtime_path: "exprsn_sdk::wit_bindgen::rt",
        default_bindings_module: "exprsn_sdk::bindings::job_worker",
        pub_export_macro: true,
        with: { "exprsn:queue/types@1.0.0": crate::bindings::exprsn::queue::types },
    });
}

/// The world `event-subscriber`.
pub mod event_subscriber {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "exprsn:service/event-subscriber",
        runtime_path: "exprsn_sdk::wit_bindgen::rt",
        default_bindings_module: "exprsn_sdk::bindings::event_subscriber",
        pub_export_macro: true,
        with: { "exprsn:events/types@1.0.0": crate::bindings::exprsn::events::types },
    });
}
