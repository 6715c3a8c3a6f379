//! Synchronous twins: the interfaces `…-sync`, for components that cannot call async functions.
//!
//! **Invariant:** a twin has no behaviour of its own. Each of its functions asks the caller of its store and calls the
//! function of the same name, which the async interface calls too.

/// Implements a twin's trait: `by` makes, of the store's state (and a resource), what has the functions listed.
///
/// What follows the list is taken as it is.
macro_rules! twin {
    (
        impl $host:path for $state_type:ty by |$state:ident $(, $this:ident: $this_type:ty)?| $caller:expr => {
            $(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*
        }
        $($rest:tt)*
    ) => {
        impl $host for $state_type {
            $(async fn $name(
                &mut self,
                $($this: $this_type,)?
                $($argument: $type),*
            ) -> wasmtime::Result<$answer> {
                let $state = self;
                let caller = $caller;
                Ok(caller.$name($($argument),*).await)
            })*
            $($rest)*
        }
    };
}

pub(crate) use twin;
