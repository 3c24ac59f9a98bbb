//! The declaration of a list of policies.

/// Declares a list of policies: the struct `Name` with what a route has of each, and the struct `RawName` with what one
/// level of the file says, which tables take in by `with`.
///
/// ```text
/// policies! {
///     /// What the list is for.
///     // The header is that of the table whose section of the reference describes the keys. `foreign` may be left out.
///     Name, RawName, "[header]", foreign NAMES {
///         /// What the key does.
///         policy field: Type = "key" as KindThatIsAPolicy;
///     }
/// }
/// ```
macro_rules! policies {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $raw:ident, $home:literal $(, foreign $foreign:ident)? {
            $(
                $(#[doc = $field_doc:literal])+
                policy $field:ident: $ty:ty = $key:literal as $kind:ty;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $(
                #[doc = concat!("`", $key, "`.")]
                $(#[doc = $field_doc])+
                pub $field: $ty,
            )+
        }

        #[doc = concat!("What one level of the file says of [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $raw {
            $( $field: Option<
                $crate::decode::decoder::Spanned<
                    Option<<$kind as $crate::decode::kind::ValueKind>::Value>,
                >,
            >, )+
        }

        impl $crate::decode::field_group::FieldGroup for $raw {
            fn read(
                reader: &$crate::decode::reader::TableReader<'_, '_>,
                cx: &mut $crate::decode::decoder::Decoder<'_>,
            ) -> Self {
                Self { $( $field: reader.optional::<
                    $crate::decode::kinds::SpannedKind<$crate::decode::kinds::OrOff<$kind>>,
                >($key, cx), )+ }
            }

            fn fields() -> Vec<$crate::decode::shape::FieldInfo> {
                vec![$( $crate::decode::shape::FieldInfo {
                    key: $key,
                    doc: concat!($($field_doc),+),
                    shape: <$crate::decode::kinds::OrOff<$kind> as $crate::decode::kind::ValueKind>::shape(),
                    required: false,
                    default: None,
                    home: Some($home),
                }, )+]
            }

            fn foreign() -> &'static [$crate::decode::shape::ForeignName] {
                policies!(@foreign $($foreign)?)
            }
        }

        impl $name {
            /// Combines what the levels of a place say, the lowest first.
            pub(crate) fn combine(
                levels: &[$crate::policy::level::Level<'_, $raw>],
                place: &$crate::policy::level::Place<'_>,
                cx: &mut $crate::decode::decoder::Decoder<'_>,
            ) -> Self {
                Self {
                    $( $field: $crate::policy::level::combine::<$raw, $kind>(
                        $key, levels, |raw| raw.$field.as_ref(), place, cx,
                    ), )+
                }
            }
        }
    };
    (@foreign $foreign:ident) => { $foreign };
    (@foreign) => { &[] };
}

pub(crate) use policies;
