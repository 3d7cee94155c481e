//! What `wasi:filesystem` of WASI 0.2 and of 0.3 have in common: codes, flags, and what guests do not
//! open.

use wasmtime_wasi::{
    p2::bindings::filesystem::types as p2,
    p3::bindings::filesystem::types::{self as p3, ErrorCode},
};

/// What is neither a file nor a directory.
pub(super) const DEVICE: &str = "a device";
pub(super) const OTHER: &str = "a FIFO or a socket";

/// What is neither a file nor a directory nor a link to one.
pub(super) fn other(kind: p2::DescriptorType) -> Option<&'static str> {
    match kind {
        p2::DescriptorType::RegularFile
        | p2::DescriptorType::Directory
        | p2::DescriptorType::SymbolicLink => None,
        p2::DescriptorType::BlockDevice | p2::DescriptorType::CharacterDevice => Some(DEVICE),
        p2::DescriptorType::Fifo | p2::DescriptorType::Socket | p2::DescriptorType::Unknown => {
            Some(OTHER)
        }
    }
}

/// A code of WASI 0.2 in that of 0.3.
pub(super) fn code(code: p2::ErrorCode) -> ErrorCode {
    match code {
        // There is no such code any more.
        p2::ErrorCode::WouldBlock => ErrorCode::Busy,
        p2::ErrorCode::Access => ErrorCode::Access,
        p2::ErrorCode::Already => ErrorCode::Already,
        p2::ErrorCode::BadDescriptor => ErrorCode::BadDescriptor,
        p2::ErrorCode::Busy => ErrorCode::Busy,
        p2::ErrorCode::Deadlock => ErrorCode::Deadlock,
        p2::ErrorCode::Quota => ErrorCode::Quota,
        p2::ErrorCode::Exist => ErrorCode::Exist,
        p2::ErrorCode::FileTooLarge => ErrorCode::FileTooLarge,
        p2::ErrorCode::IllegalByteSequence => ErrorCode::IllegalByteSequence,
        p2::ErrorCode::InProgress => ErrorCode::InProgress,
        p2::ErrorCode::Interrupted => ErrorCode::Interrupted,
        p2::ErrorCode::Invalid => ErrorCode::Invalid,
        p2::ErrorCode::Io => ErrorCode::Io,
        p2::ErrorCode::IsDirectory => ErrorCode::IsDirectory,
        p2::ErrorCode::Loop => ErrorCode::Loop,
        p2::ErrorCode::TooManyLinks => ErrorCode::TooManyLinks,
        p2::ErrorCode::MessageSize => ErrorCode::MessageSize,
        p2::ErrorCode::NameTooLong => ErrorCode::NameTooLong,
        p2::ErrorCode::NoDevice => ErrorCode::NoDevice,
        p2::ErrorCode::NoEntry => ErrorCode::NoEntry,
        p2::ErrorCode::NoLock => ErrorCode::NoLock,
        p2::ErrorCode::InsufficientMemory => ErrorCode::InsufficientMemory,
        p2::ErrorCode::InsufficientSpace => ErrorCode::InsufficientSpace,
        p2::ErrorCode::NotDirectory => ErrorCode::NotDirectory,
        p2::ErrorCode::NotEmpty => ErrorCode::NotEmpty,
        p2::ErrorCode::NotRecoverable => ErrorCode::NotRecoverable,
        p2::ErrorCode::Unsupported => ErrorCode::Unsupported,
        p2::ErrorCode::NoTty => ErrorCode::NoTty,
        p2::ErrorCode::NoSuchDevice => ErrorCode::NoSuchDevice,
        p2::ErrorCode::Overflow => ErrorCode::Overflow,
        p2::ErrorCode::NotPermitted => ErrorCode::NotPermitted,
        p2::ErrorCode::Pipe => ErrorCode::Pipe,
        p2::ErrorCode::ReadOnly => ErrorCode::ReadOnly,
        p2::ErrorCode::InvalidSeek => ErrorCode::InvalidSeek,
        p2::ErrorCode::TextFileBusy => ErrorCode::TextFileBusy,
        p2::ErrorCode::CrossDevice => ErrorCode::CrossDevice,
    }
}

/// The flags of one that the other has too.
macro_rules! flags {
    ($from:ident, $all:path, $none:path: $($flag:ident)*) => {{
        let mut flags = <$none>::empty();
        $(if $from.contains(<$all>::$flag) {
            flags |= <$none>::$flag;
        })*
        flags
    }};
}

pub(super) fn path_flags(from: p3::PathFlags) -> p2::PathFlags {
    flags!(from, p3::PathFlags, p2::PathFlags: SYMLINK_FOLLOW)
}

pub(super) fn open_flags(from: p3::OpenFlags) -> p2::OpenFlags {
    flags!(from, p3::OpenFlags, p2::OpenFlags: CREATE DIRECTORY EXCLUSIVE TRUNCATE)
}

pub(super) fn flags(from: p3::DescriptorFlags) -> p2::DescriptorFlags {
    flags!(
        from, p3::DescriptorFlags, p2::DescriptorFlags:
        READ WRITE FILE_INTEGRITY_SYNC DATA_INTEGRITY_SYNC REQUESTED_WRITE_SYNC MUTATE_DIRECTORY
    )
}
