//! Whether components built against published WIT still fit: what may never change, and what may be added.
//!
//! Interfaces, functions, types, worlds and imports of worlds may be added. A type's parts, a function's signature, a
//! world's exports and the functions of what guests export may not change at all: both sides compiled them in.

use super::packages;
use std::collections::BTreeMap;
use wit_parser::{
    Function, FunctionKind, Handle, Interface, InterfaceId, PackageName, Resolve, Type, TypeDef,
    TypeDefKind, TypeId, World, WorldItem, WorldKey,
};

/// What to do about a broken item.
pub const REMEDY: &str = "what is published stays as it is: give the new form another name, or a package of its own \
     (`wit/deps/exprsn-<capability>-v2/`, version 2.0.0), and let the host link both";

/// Every item of our packages by name (`exprsn:sql/database.query`), with all of it that must not change.
type Items = BTreeMap<String, String>;

/// What of `published` is not in `present` as it was, one sentence each.
pub fn broken(published: &Resolve, present: &Resolve) -> Vec<String> {
    let present = items(present);
    let mut broken = Vec::new();
    for (name, was) in items(published) {
        match present.get(&name) {
            None => broken.push(format!("{name} was removed")),
            Some(is) if *is != was => {
                broken.push(format!("{name} was `{was}` and is now `{is}`"));
            }
            Some(_) => {}
        }
    }
    broken
}

/// How many items of our packages could break.
pub fn count(resolve: &Resolve) -> usize {
    items(resolve).len()
}

fn items(resolve: &Resolve) -> Items {
    let mut items = Items::new();
    for id in packages(resolve) {
        let package = &resolve.packages[id];
        let name = compatible(&package.name);
        for (interface, id) in &package.interfaces {
            let name = format!("{name}/{interface}");
            items.insert(name.clone(), "interface".to_owned());
            add_interface(resolve, &name, &resolve.interfaces[*id], &mut items);
        }
        for (world, id) in &package.worlds {
            let name = format!("world {name}/{world}");
            add_world(resolve, &name, &resolve.worlds[*id], &mut items);
        }
    }
    items
}

/// `exprsn:sql@1`: a later version in its place must do all that an earlier one did.
fn compatible(name: &PackageName) -> String {
    let (namespace, package) = (&name.namespace, &name.name);
    match &name.version {
        Some(version) => {
            let track = PackageName::version_compat_track_string(version);
            format!("{namespace}:{package}@{track}")
        }
        None => format!("{namespace}:{package}"),
    }
}

fn interface_name(resolve: &Resolve, id: InterfaceId) -> String {
    let interface = &resolve.interfaces[id];
    let package = interface.package.map(|id| &resolve.packages[id].name);
    let name = interface.name.as_deref().unwrap_or("(inline)");
    format!("{}/{name}", package.map(compatible).unwrap_or_default())
}

fn add_interface(resolve: &Resolve, name: &str, interface: &Interface, items: &mut Items) {
    for (type_name, id) in &interface.types {
        add_type(resolve, &format!("{name}.{type_name}"), *id, items);
    }
    for function in interface.functions.values() {
        let item = format!("{name}.{}", function_name(function));
        items.insert(item, signature(resolve, function));
    }
}

/// `query`, `transaction.query`, `transaction.constructor`.
fn function_name(function: &Function) -> String {
    match function.name.split_once(']') {
        Some(("[constructor", resource)) => format!("{resource}.constructor"),
        Some((_, name)) => name.to_owned(),
        None => function.name.clone(),
    }
}

fn add_type(resolve: &Resolve, name: &str, id: TypeId, items: &mut Items) {
    let definition = &resolve.types[origin(resolve, id)];
    let mut part = |part: &str, ty: Option<&Type>| {
        let ty = ty.map_or("nothing".to_owned(), |ty| type_text(resolve, ty));
        items.insert(format!("{name}.{part}"), ty);
    };
    let (kind, names): (_, Vec<&str>) = match &definition.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            fields.for_each(|field| part(&field.name, Some(&field.ty)));
            let fields = record.fields.iter();
            ("record", fields.map(|field| field.name.as_str()).collect())
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter();
            cases.for_each(|case| part(&case.name, case.ty.as_ref()));
            let cases = variant.cases.iter();
            ("variant", cases.map(|case| case.name.as_str()).collect())
        }
        TypeDefKind::Enum(of) => {
            let cases = of.cases.iter();
            ("enum", cases.map(|case| case.name.as_str()).collect())
        }
        TypeDefKind::Flags(flags) => {
            let flags = flags.flags.iter();
            ("flags", flags.map(|flag| flag.name.as_str()).collect())
        }
        _ => {
            items.insert(name.to_owned(), definition_text(resolve, definition));
            return;
        }
    };
    items.insert(
        name.to_owned(),
        format!("{kind} {{ {} }}", names.join(", ")),
    );
}

/// The definition behind `use` and plain renaming. Which interface it stands in matters to nobody but for resources.
fn origin(resolve: &Resolve, id: TypeId) -> TypeId {
    match resolve.types[id].kind {
        TypeDefKind::Type(Type::Id(of)) => origin(resolve, of),
        _ => id,
    }
}

/// A type as it is written where it is used: by its name, or by what it is made of.
fn type_text(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => {
            let definition = &resolve.types[*id];
            let name = definition.name.clone();
            name.unwrap_or_else(|| definition_text(resolve, definition))
        }
        primitive => format!("{primitive:?}").to_lowercase(),
    }
}

fn definition_text(resolve: &Resolve, definition: &TypeDef) -> String {
    let text = |ty: &Type| type_text(resolve, ty);
    let optional = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), text);
    match &definition.kind {
        TypeDefKind::Resource => match definition.owner {
            wit_parser::TypeOwner::Interface(id) => {
                format!("resource of {}", interface_name(resolve, id))
            }
            _ => "resource".to_owned(),
        },
        TypeDefKind::Handle(Handle::Own(id)) => text(&Type::Id(*id)),
        TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", text(&Type::Id(*id))),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<_> = tuple.types.iter().map(text).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Option(ty) => format!("option<{}>", text(ty)),
        TypeDefKind::Result(result) => {
            format!(
                "result<{}, {}>",
                optional(&result.ok),
                optional(&result.err)
            )
        }
        TypeDefKind::List(ty) => format!("list<{}>", text(ty)),
        TypeDefKind::FixedLengthList(ty, length) => format!("list<{}, {length}>", text(ty)),
        TypeDefKind::Map(key, value) => format!("map<{}, {}>", text(key), text(value)),
        TypeDefKind::Future(ty) => format!("future<{}>", optional(ty)),
        TypeDefKind::Stream(ty) => format!("stream<{}>", optional(ty)),
        TypeDefKind::Type(ty) => text(ty),
        other => format!(
            "{} {}",
            other.as_str(),
            definition.name.as_deref().unwrap_or("_")
        ),
    }
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let kind = match function.kind {
        FunctionKind::Freestanding | FunctionKind::AsyncFreestanding => "func",
        FunctionKind::Method(_) | FunctionKind::AsyncMethod(_) => "method",
        FunctionKind::Static(_) | FunctionKind::AsyncStatic(_) => "static func",
        FunctionKind::Constructor(_) => "constructor",
    };
    let asynchronous = if function.kind.is_async() {
        "async "
    } else {
        ""
    };
    let parameters = function.params.iter();
    let parameters: Vec<_> = parameters
        .map(|parameter| format!("{}: {}", parameter.name, type_text(resolve, &parameter.ty)))
        .collect();
    let result = function.result.as_ref();
    let result = result.map_or(String::new(), |ty| {
        format!(" -> {}", type_text(resolve, ty))
    });
    format!("{asynchronous}{kind}({}){result}", parameters.join(", "))
}

fn add_world(resolve: &Resolve, name: &str, world: &World, items: &mut Items) {
    for (key, item) in &world.imports {
        let import = world_item(resolve, key, item);
        items.insert(format!("{name}: import {import}"), String::new());
    }
    let mut exports = Vec::new();
    for (key, item) in &world.exports {
        exports.push(world_item(resolve, key, item));
        if let WorldItem::Interface { id, .. } = item {
            // A guest that was compiled before a function was added does not export it.
            let functions: Vec<_> = resolve.interfaces[*id].functions.keys().cloned().collect();
            let item = format!("{} as guests export it", interface_name(resolve, *id));
            items.insert(item, format!("functions {{ {} }}", functions.join(", ")));
        }
    }
    exports.sort();
    items.insert(
        name.to_owned(),
        format!("exports {{ {} }}", exports.join(", ")),
    );
}

fn world_item(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> String {
    match (key, item) {
        (_, WorldItem::Function(function)) => {
            format!("{}: {}", function.name, signature(resolve, function))
        }
        (WorldKey::Interface(id), _) => interface_name(resolve, *id),
        (WorldKey::Name(name), _) => name.clone(),
    }
}

#[cfg(test)]
mod tests;
