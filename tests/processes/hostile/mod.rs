//! A coordinator under attack over sockets: its memory, its open descriptors, and how long an honest job takes beside it.

mod beside;
mod callers;
mod files;
mod flood;
mod intruder;
mod oversized;
mod pipelined;
mod readers;
mod replay;
mod senders;
mod tls;
mod victim;
mod wire;
