//! Synchronous twins: the interfaces `…-sync`, for components that cannot call async functions.
//!
//! **Invariant:** a twin has no behaviour of its own. Each of its functions asks the caller of its store and calls the
//! function of the same name, which the async interface calls too.

/// Implements a twin's trait for the state of a store: the closure makes of it what has the functions listed.
///
/// The second form is for a resource's trait, where the closure is given the resource too; what follows its list belongs
/// to the trait as it stands.
macro_rules! twin {
    (
        $host:path: |$state:ident| $caller:expr => {
            $(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*
        }
    ) => {
        impl $host for $crate::store::StoreState {
            $(async fn $name(&mut self, $($argument: $type),*) -> wasmtime::Result<$answer> {
                let $state = self;
                let caller = $caller;
                Ok(caller.$name($($argument),*).await)
            })*
        }
    };
    (
        $host:path: |$state:ident, $this:ident: $resource:ty| $caller:expr => {
            $(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*
        }
        $($rest:tt)*
    ) => {
        impl $host for $crate::store::StoreState {
            $(async fn $name(
                &mut self,
                $this: $resource,
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
