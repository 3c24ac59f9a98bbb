//! Declarations of tables. Each makes the struct, its decoder, and what schema and reference say about it.

/// Declares a table of the file, by a struct with a field for each key:
///
/// ```text
/// table! {
///     /// What the table does.
///     Name, "name", "[header]", foreign NAMES {      // `foreign` may be left out
///         /// What the key does.
///         required field: Type = "key" as ValueKind;
///         /// What the key does.
///         optional field: Type = "key" as ValueKind;      // becomes Option<Type>
///         /// What the key does.
///         preset(DEFAULT) field: Type = "key" as ValueKind;
///         with field: Group;      // further keys, which several tables share
///     }
/// }
/// ```
///
/// The struct also has `span`, that of the table.
macro_rules! table {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal, $header:literal $(, foreign $foreign:ident)? {
            $(
                $(#[doc = $field_doc:literal])+
                $mode:ident $(($preset:expr))? $field:ident: $ty:ty = $key:literal as $kind:ty;
            )*
            $( with $group_field:ident: $group:ty; )*
        }
    ) => {
        $(#[doc = $doc])+
        // Without `PartialEq`, which reads every field, the compiler reports a key that nothing uses.
        #[derive(Debug, Clone)]
        pub(crate) struct $name {
            /// The span of the table.
            #[allow(dead_code, reason = "not every table has checks that need it")]
            pub(crate) span: $crate::text::source::Span,
            $( $(#[doc = $field_doc])+ pub(crate) $field: table!(@type $mode $ty), )*
            $(
                #[doc = concat!("The keys of [`", stringify!($group), "`].")]
                pub(crate) $group_field: $group,
            )*
        }

        frame! {
            $name, $title, $header, [$($foreign)?], ($($doc),+),
            |reader, cx| {
                $( let $field = table!(@read $mode $(($preset))? reader, cx, $key, $kind); )*
                $( let $group_field = <$group as $crate::decode::field_group::FieldGroup>::read(&reader, cx); )*
                Some(Self {
                    span: reader.span(),
                    $( $field: table!(@keep $mode $field), )*
                    $( $group_field, )*
                })
            },
            [$($group),*],
            $(
                $key, ($($field_doc),+), $kind,
                table!(@required $mode), table!(@default $mode $(($preset))? $kind);
            )*
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
    (@default preset($preset:expr) $kind:ty) => {{
        type Value = <$kind as $crate::decode::kind::ValueKind>::Value;
        let preset: $crate::decode::preset::Preset<Value> = $preset;
        Some($crate::decode::shape::DefaultInfo {
            value: <$kind as $crate::decode::kind::WritableKind>::to_json(&preset.value),
            source: preset.source,
        })
    }};
    (@default $mode:ident $kind:ty) => { None };
}

/// Declares a table that several places of the file may have, and whose settings merge: the struct `Name` with all
/// values and their defaults, and the table `NamePatch` with the values that one place sets.
///
/// ```text
/// layer! {
///     /// What the settings are about.
///     Name, NamePatch, "name", "[header]" {
///         /// What the key does.
///         field: Type = "key" as ValueKind, preset(value, "reason");
///     }
/// }
/// ```
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

        #[doc = concat!("The settings of [`", stringify!($name), "`] that one place of the file sets.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $patch {
            $( $(#[doc = $field_doc])+ pub $field: Option<$ty>, )+
        }

        impl Default for $name {
            fn default() -> Self {
                $( let $field: $crate::decode::preset::Preset<$ty> = $preset; )+
                Self { $( $field: $field.value, )+ }
            }
        }

        impl $name {
            /// These settings, overridden by those that `patch` sets.
            #[must_use]
            pub fn patched(&self, patch: &$patch) -> Self {
                Self { $( $field: patch.$field.unwrap_or(self.$field), )+ }
            }
        }

        frame! {
            $patch, $title, $header, [$($foreign)?], ($($doc),+),
            |reader, cx| Some(Self { $( $field: reader.optional::<$kind>($key, cx), )+ }),
            [],
            $(
                $key, ($($field_doc),+), $kind,
                false, table!(@default preset($preset) $kind);
            )+
        }
    };
}

/// Implements `ValueKind` and `TableKind` for a `table!` and for the patch of a `layer!`.
macro_rules! frame {
    (@foreign) => { &[] as &[$crate::decode::shape::ForeignName] };
    (@foreign $foreign:ident) => { $foreign };
    (
        $name:ident, $title:literal, $header:literal, [$($foreign:ident)?], ($($doc:literal),+),
        |$reader:ident, $cx:ident| $made:expr,
        [$($group:ty),*],
        $( $key:literal, ($($field_doc:literal),+), $kind:ty, $required:expr, $default:expr; )*
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
                    foreign: [
                        frame!(@foreign $($foreign)?),
                        $( <$group as $crate::decode::field_group::FieldGroup>::foreign(), )*
                    ]
                    .concat(),
                    fields: [
                        vec![$( $crate::decode::shape::FieldInfo {
                            key: $key,
                            doc: concat!($($field_doc),+),
                            shape: <$kind as $crate::decode::kind::ValueKind>::shape(),
                            required: $required,
                            default: $default,
                            home: None,
                        }, )*],
                        $( <$group as $crate::decode::field_group::FieldGroup>::fields(), )*
                    ]
                    .concat(),
                }
            }
        }
    };
}

pub(crate) use {frame, layer, table};
