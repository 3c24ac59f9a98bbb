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
///         required field: Type = "key" as Kind;
///         /// What the key does.
///         optional field: Type = "key" as Kind;       // becomes Option<Type>
///         /// What the key does.
///         preset(limits::X) field: Type = "key" as Kind;
///     }
/// }
/// ```
///
/// The struct also has `at`, the place of the table.
macro_rules! table {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal, $header:literal {
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
            pub(crate) at: $crate::source::Span,
            $( $(#[doc = $field_doc])+ pub(crate) $field: table!(@type $mode $ty), )+
        }

        frame! {
            $name, $title, $header, ($($doc),+),
            |reader, cx| {
                $( let $field = table!(@read $mode $(($preset))? reader, cx, $key, $kind); )+
                Some(Self {
                    at: reader.span(),
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
        Some($crate::shape::DefaultInfo {
            value: <$kind as $crate::decode::Spell>::spell(&$preset.value),
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
        $name:ident, $patch:ident, $title:literal, $header:literal {
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
            $patch, $title, $header, ($($doc),+),
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
    (
        $name:ident, $title:literal, $header:literal, ($($doc:literal),+),
        |$reader:ident, $cx:ident| $made:expr,
        $( $key:literal, ($($field_doc:literal),+), $kind:ty, $required:expr, $default:expr; )+
    ) => {
        impl $crate::decode::Kind for $name {
            type Value = Self;

            fn decode(
                value: &$crate::decode::Value<'_>,
                $cx: &mut $crate::decode::Decoder<'_>,
            ) -> Option<Self> {
                let $reader = $crate::decode::Reader::new::<Self>(value, $cx)?;
                $made
            }

            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Table(<Self as $crate::decode::Table>::info)
            }
        }

        impl $crate::decode::Table for $name {
            fn info() -> $crate::shape::TableInfo {
                $crate::shape::TableInfo {
                    name: $title,
                    header: $header,
                    doc: concat!($($doc),+),
                    fields: vec![$( $crate::shape::FieldInfo {
                        key: $key,
                        doc: concat!($($field_doc),+),
                        shape: <$kind as $crate::decode::Kind>::shape(),
                        required: $required,
                        default: $default,
                    }, )+],
                }
            }
        }
    };
}

pub(crate) use {frame, layer, table};
