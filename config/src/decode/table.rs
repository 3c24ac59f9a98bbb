//! One declaration a table: it makes the struct, its decoder, its schema and its reference.
//!
//! Adding a key to the file is adding one line to a `table!` or `layer!`.

/// Declares a table of the file:
///
/// ```text
/// table! {
///     /// What the table is about.
///     Name, "name", "[header]" {
///         /// What the key does.
///         required field: Type = "key" as ValueKind;
///         /// What the key does.
///         optional field: Type = "key" as ValueKind;       // becomes Option<Type>
///         /// What the key does.
///         preset(limits::X) field: Type = "key" as ValueKind;
///     }
/// }
/// ```
///
/// The struct also has `at`, the place of the table.
macro_rules! table {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal, $header:literal $(, foreign $foreign:ident)? {
            $(
                $(#[doc = $field_doc:literal])+
                $mode:ident $(($preset:expr))? $field:ident: $ty:ty = $key:literal as $kind:ty;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name {
            /// Where the table begins.
            pub(crate) span: $crate::text::source::Span,
            $( $(#[doc = $field_doc])+ pub(crate) $field: table!(@type $mode $ty), )+
        }

        frame! {
            $name, $title, $header, [$($foreign)?], ($($doc),+),
            |reader, cx| {
                $( let $field = table!(@read $mode $(($preset))? reader, cx, $key, $kind); )+
                Some(Self {
                    span: reader.span(),
                    $( $field: table!(@keep $mode $field), )+
                })
            },
            $(
                $key, ($($field_doc),+), $kind,
                table!(@required $mode), table!(@default $mode $(($preset))? $kind);
            )+
        }
    };
    (@type required $ty:ty) => { $ty };
    (@type optional $ty:ty) => { Option<$ty> };
    (@type preset $ty:ty) => { $ty };
    (@read required $reader:ident, $cx:ident, $key:literal, $kind:ty) => {
        $reader.required::<$kind>($key, $cx)
    };
    (@read optional $reader:ident, $cx:ident, $key:literal, $kind:ty) => {
        $reader.optional::<$kind>($key, $cx)
    };
    (@read preset($preset:expr) $reader:ident, $cx:ident, $key:literal, $kind:ty) => {
        $reader.optional::<$kind>($key, $cx).unwrap_or($preset.value)
    };
    (@keep required $field:ident) => { $field? };
    (@keep $mode:ident $field:ident) => { $field };
    (@required required) => { true };
    (@required $mode:ident) => { false };
    (@default preset($preset:expr) $kind:ty) => {
        Some($crate::decode::shape::DefaultInfo {
            value: <$kind as $crate::decode::kind::WritableKind>::to_json(&$preset.value),
            source: $preset.source,
        })
    };
    (@default $mode:ident $kind:ty) => { None };
}

/// Declares settings that merge: the full struct, its defaults, the patch that one place in the
/// file holds, how they merge, and how the patch is read.
macro_rules! layer {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $patch:ident, $title:literal, $header:literal $(, foreign $foreign:ident)? {
            $(
                $(#[doc = $field_doc:literal])+
                $field:ident: $ty:ty = $key:literal as $kind:ty, $preset:expr;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $ty, )+
        }

        #[doc = concat!("What one place in the file says about [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $patch {
            $( $(#[doc = $field_doc])+ pub $field: Option<$ty>, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $preset.value, )+ }
            }
        }

        impl $name {
            /// These settings with what `patch` says in place of their own.
            #[must_use]
            pub fn patched(&self, patch: &$patch) -> Self {
                Self { $( $field: patch.$field.unwrap_or(self.$field), )+ }
            }
        }

        frame! {
            $patch, $title, $header, [$($foreign)?], ($($doc),+),
            |reader, cx| Some(Self { $( $field: reader.optional::<$kind>($key, cx), )+ }),
            $(
                $key, ($($field_doc),+), $kind,
                false, table!(@default preset($preset) $kind);
            )+
        }
    };
}

/// What a `table!` and the patch of a `layer!` have in common: how they are read from a file, and
/// what they say about themselves.
macro_rules! frame {
    (@foreign) => { &[] };
    (@foreign $foreign:ident) => { $foreign };
    (
        $name:ident, $title:literal, $header:literal, [$($foreign:ident)?], ($($doc:literal),+),
        |$reader:ident, $cx:ident| $made:expr,
        $( $key:literal, ($($field_doc:literal),+), $kind:ty, $required:expr, $default:expr; )+
    ) => {
        impl $crate::decode::kind::ValueKind for $name {
            type Value = Self;

            fn decode(
                value: &$crate::decode::decoder::Value<'_>,
                $cx: &mut $crate::decode::decoder::Decoder<'_>,
            ) -> Option<Self> {
                let $reader = $crate::decode::reader::TableReader::new::<Self>(value, $cx)?;
                $made
            }

            fn shape() -> $crate::decode::shape::Shape {
                $crate::decode::shape::Shape::Table(<Self as $crate::decode::kind::TableKind>::info)
            }
        }

        impl $crate::decode::kind::TableKind for $name {
            fn info() -> $crate::decode::shape::TableInfo {
                $crate::decode::shape::TableInfo {
                    name: $title,
                    header: $header,
                    doc: concat!($($doc),+),
                    foreign: frame!(@foreign $($foreign)?),
                    fields: vec![$( $crate::decode::shape::FieldInfo {
                        key: $key,
                        doc: concat!($($field_doc),+),
                        shape: <$kind as $crate::decode::kind::ValueKind>::shape(),
                        required: $required,
                        default: $default,
                    }, )+],
                }
            }
        }
    };
}

pub(crate) use {frame, layer, table};
