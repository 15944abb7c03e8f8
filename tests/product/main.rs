//! The product as a newcomer meets it: the embedded demo, its memory, and what README says of it.
mod adapter_command;
mod bench;
mod collected;
mod dashboard;
mod demo;
mod drain;
mod frozen_base;
mod killed;
mod program;
mod readme;
mod running;
mod swap;
mod told;
