//! The mechanism.
#![no_std]
