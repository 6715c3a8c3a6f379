//! The scripts, each compiled into the program with what it shares with the others.

use redis::Script;
use std::sync::LazyLock;

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file))),+)));)*
    };
}

scripts! {
    ADD_MANY = "common.lua" "add_many.lua";
    CONTINUE = "common.lua" "continue.lua";
    COUNTS = "common.lua" "counts.lua";
    DECLARE = "common.lua" "declare.lua";
    DELIVER = "common.lua" "events.lua" "deliver.lua";
    EXTEND = "common.lua" "extend.lua";
    GET = "common.lua" "get.lua";
    LIST = "common.lua" "list.lua";
    PAUSE = "common.lua" "pause.lua";
    PULL = "common.lua" "events.lua" "pull.lua";
    RECUR = "common.lua" "recur.lua";
    RECURRENCES = "common.lua" "recurrences.lua";
    REMOVE = "common.lua" "remove.lua";
    RESCUE = "common.lua" "flow.lua" "finish.lua" "rescue.lua";
    RETRY = "common.lua" "retry.lua";
    SCHEDULE = "common.lua" "schedule.lua";
    SETTLE = "common.lua" "flow.lua" "finish.lua" "settle.lua";
    SUBSCRIBE = "common.lua" "events.lua" "subscribe.lua";
    TRIM = "common.lua" "events.lua" "trim.lua";
}
