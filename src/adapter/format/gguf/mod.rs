//! llama.cpp's LoRA adapters, one file each: read as the PEFT adapter they stand for, and written from one.
//!
//! The rules are those of llama.cpp's loader (`llama-adapter.cpp`) and of its converter (`convert_lora_to_gguf.py`).
//! Reading translates names, order of rows and scaling, and leaves every check of the adapter itself to the PEFT
//! reader, so that both forms are one adapter.
mod architecture;
mod config;
mod contents;
mod export;
mod header;
mod scale;
mod translate;

pub(in crate::adapter) use export::{Target, check_task, export};
pub(in crate::adapter) use translate::translate;
