//! Log records with fields: `log::info!("posted", post_id = id)`.
//!
//! The message is a format string; a field's value is anything with `Display`. Natively records go to stderr.

pub use crate::__log_debug as debug;
pub use crate::__log_error as error;
pub use crate::__log_info as info;
pub use crate::__log_trace as trace;
pub use crate::__log_warn as warn;

pub use crate::bindings::exprsn::telemetry::logging::Level;

/// Writes one record; the macros are shorter.
pub fn record(level: Level, message: &str, fields: &[(String, String)]) {
    #[cfg(target_family = "wasm")]
    crate::bindings::exprsn::telemetry::logging::log(level, message, fields);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?} {message} {fields:?}");
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $message:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::log::record(
            $crate::log::Level::$level,
            &::std::format!($message),
            &[$((::std::string::String::from(::core::stringify!($name)), ::std::string::ToString::to_string(&$value))),*],
        )
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($t:tt)*) => { $crate::__log!(Trace, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($t:tt)*) => { $crate::__log!(Debug, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($t:tt)*) => { $crate::__log!(Info, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($t:tt)*) => { $crate::__log!(Warn, $($t)*) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($t:tt)*) => { $crate::__log!(Error, $($t)*) }; }
