//! The macro that makes a component of a service's functions.

/// Exports what a service offers: `export!(http = routes, jobs = jobs, events = events)`.
///
/// Each part is optional, and the component has no export that is not named here. The functions build a
/// [`Router`](crate::Router) (once per instance), [`Jobs`](crate::Jobs) and [`Events`](crate::Events).
#[macro_export]
macro_rules! export {
    ($($part:ident = $build:path),+ $(,)?) => {
        $($crate::__export_part!($part, $build);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_part {
    (http, $build:path) => {
        const _: () = {
            struct Http;
            impl $crate::bindings::http_service::exports::wasi::http::handler::Guest for Http {
                async fn handle(
                    request: $crate::bindings::wasi::http::types::Request,
                ) -> ::core::result::Result<
                    $crate::bindings::wasi::http::types::Response,
                    $crate::bindings::wasi::http::types::ErrorCode,
                > {
                    $crate::runtime::serve($build, request).await
                }
            }
            $crate::__if_wasm!(Http, $crate::bindings::http_service);
        };
    };
    (jobs, $build:path) => {
        const _: () = {
            struct Worker;
            impl $crate::bindings::job_worker::exports::exprsn::queue::worker::Guest for Worker {
                async fn handle(
                    job: $crate::bindings::exprsn::queue::types::Job,
                ) -> ::core::result::Result<
                    ::core::option::Option<::std::string::String>,
                    $crate::bindings::exprsn::queue::types::Failure,
                > {
                    $crate::runtime::work($build, job).await
                }
            }
            $crate::__if_wasm!(Worker, $crate::bindings::job_worker);
        };
    };
    (events, $build:path) => {
        const _: () = {
            struct Subscriber;
            impl $crate::bindings::event_subscriber::exports::exprsn::events::subscriber::Guest
                for Subscriber
            {
                async fn receive(
                    event: $crate::bindings::exprsn::events::types::Event,
                ) -> ::core::result::Result<(), $crate::bindings::exprsn::events::types::Failure>
                {
                    $crate::runtime::receive($build, event).await
                }
            }
            $crate::__if_wasm!(Subscriber, $crate::bindings::event_subscriber);
        };
    };
    ($part:ident, $build:path) => {
        ::core::compile_error!("export! knows http, jobs and events");
    };
}

/// Export names of the component model are no symbols for native linkers: tests are built without them.
#[doc(hidden)]
#[macro_export]
macro_rules! __if_wasm {
    ($type:ident, $($bindings:tt)*) => {
        #[cfg(target_family = "wasm")]
        $($bindings)*::export!($type with_types_in $($bindings)*);
        #[cfg(not(target_family = "wasm"))]
        #[allow(dead_code, reason = "keeps what the component exports in use")]
        fn exported() -> $type {
            $type
        }
    };
}
