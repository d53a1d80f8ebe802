// SPDX-License-Identifier: GPL-2.0

use std::{
    ffi::CString,
    sync::atomic::{
        AtomicUsize,
        Ordering, //
    },
};

use proc_macro2::{
    Ident,
    Literal,
    Span,
    TokenStream, //
};
use quote::{
    quote,
    quote_spanned, //
};
use syn::{
    bracketed,
    ext::IdentExt,
    parse::{
        Parse,
        ParseStream, //
    },
    parse_quote,
    punctuated::Punctuated,
    spanned::Spanned,
    visit_mut::{
        self,
        VisitMut, //
    },
    Attribute,
    Error,
    FnArg,
    ItemFn,
    Lifetime,
    Pat,
    Path,
    Result,
    ReturnType,
    Signature,
    Token,
    Type,
    TypeReference,
    Visibility, //
};

use crate::helpers::gather_cfg_attrs;

/// The flags that an author gives, with the constants of `include/linux/btf.h`.
///
/// Flags that change what the verifier guarantees for an argument or a returned pointer
/// (`KF_RCU`, `KF_ACQUIRE`, `KF_ITER_*`, ...) have no place here: they would have to follow from a
/// type of the signature, as `KF_IMPLICIT_ARGS` does.
const FLAGS: &[(&str, &str)] = &[
    ("destructive", "KF_DESTRUCTIVE"),
    ("perfmon", "KF_PERFMON"),
    ("rcu_protected", "KF_RCU_PROTECTED"),
    ("sleepable", "KF_SLEEPABLE"),
    ("spinlock_safe", "KF_SPINLOCK_SAFE"),
];

/// What names of kfuncs start with.
const PREFIX: &str = "bpf_";

/// The most arguments that BPF passes in registers.
const MAX_ARGUMENTS: usize = 5;

/// The arguments of `#[kfunc(...)]`.
pub(crate) struct Flags(Vec<Ident>);

impl Parse for Flags {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Punctuated::<Ident, Token![,]>::parse_terminated(input)?
            .into_iter()
            .map(|flag| {
                let (_, constant) =
                    FLAGS.iter().find(|(name, _)| flag == name).ok_or_else(|| {
                        let names: Vec<_> = FLAGS.iter().map(|(name, _)| *name).collect();
                        Error::new_spanned(
                            &flag,
                            format!("unknown kfunc flag; there are {}", names.join(", ")),
                        )
                    })?;
                Ok(Ident::new(constant, flag.span()))
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

/// Writes `'static` where a lifetime is elided.
struct Static;

impl VisitMut for Static {
    fn visit_type_reference_mut(&mut self, ty: &mut TypeReference) {
        ty.lifetime.get_or_insert_with(|| parse_quote!('static));
        visit_mut::visit_type_reference_mut(self, ty);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = parse_quote!('static);
        }
    }
}

/// A parameter of a kfunc.
struct Parameter {
    name: Ident,
    ty: Type,
    /// The name of the size that is passed behind memory.
    size: Option<Ident>,
}

impl Parameter {
    /// Reads a parameter and takes away its `#[size]`, which only this macro understands.
    fn take(arg: &mut FnArg) -> Result<Self> {
        let FnArg::Typed(arg) = arg else {
            return Err(Error::new_spanned(arg, "a kfunc is not a method"));
        };
        let name = match &*arg.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => pat.ident.clone(),
            pat => {
                return Err(Error::new_spanned(
                    pat,
                    "a parameter of a kfunc has a name, which is its name in BTF",
                ))
            }
        };
        let mut size = None;
        for attr in arg
            .attrs
            .extract_if(.., |attr| attr.path().is_ident("size"))
        {
            size = Some(attr.parse_args::<Ident>()?);
        }

        for name in [Some(&name), size.as_ref()].into_iter().flatten() {
            // `__ign` would tell the verifier not to check, `__nullable` to let null pass.
            if name.to_string().contains("__") {
                return Err(Error::new_spanned(
                    name,
                    "`__` in the name of a parameter tells the verifier what to check; \
                     it follows from the type",
                ));
            }
        }

        Ok(Self {
            name,
            ty: (*arg.ty).clone(),
            size,
        })
    }

    /// The type as what it must implement.
    fn argument(&self) -> TokenStream {
        let ty = &self.ty;
        match self.size {
            None => quote_spanned!(ty.span()=> <#ty as ::kernel::bpf::Argument<'_>>),
            Some(_) => quote_spanned!(ty.span()=> <#ty as ::kernel::bpf::SizedArgument<'_>>),
        }
    }

    /// The same for what does not depend on lifetimes, where none can be inferred.
    fn static_argument(&self) -> TokenStream {
        let mut ty = self.ty.clone();
        Static.visit_type_mut(&mut ty);
        match self.size {
            None => quote_spanned!(ty.span()=> <#ty as ::kernel::bpf::Argument<'static>>),
            Some(_) => quote_spanned!(ty.span()=> <#ty as ::kernel::bpf::SizedArgument<'static>>),
        }
    }

    /// The parameters of the entry.
    fn abi(&self) -> TokenStream {
        let (name, argument) = (&self.name, self.static_argument());
        match &self.size {
            None => quote!(#name: #argument::Abi),
            Some(size) => quote!(#name: *mut ::kernel::ffi::c_void, #size: u32),
        }
    }

    /// The argument, made of the parameters of the entry and of `call`.
    fn convert(&self, call: &Ident) -> TokenStream {
        let (name, argument, size) = (&self.name, self.argument(), self.size.iter());
        quote! {
            // SAFETY: The verifier checked the call against the prototype, which names the type.
            unsafe { #argument::from_abi(#name, #(#size,)* &#call) }
        }
    }

    /// The type and the name of the parameters in C, as a list of strings.
    fn prototype(&self) -> TokenStream {
        let (name, argument) = (self.name.unraw().to_string(), self.static_argument());
        match &self.size {
            None => quote!(#argument::TYPE, "\0", #name, #argument::SUFFIX, "\0"),
            Some(size) => {
                let size = format!("{}__sz", size.unraw());
                quote!(#argument::TYPE, "\0", #name, "\0", "u32", "\0", #size, "\0")
            }
        }
    }

    /// The kfunc flags that follow from the parameter.
    fn flags(&self) -> TokenStream {
        let argument = self.static_argument();
        match self.size {
            None => quote!(#argument::FLAGS),
            Some(_) => quote!(0),
        }
    }

    fn len(&self) -> usize {
        1 + usize::from(self.size.is_some())
    }
}

/// Refuses what cannot be called from BPF, or not safely.
fn check_signature(sig: &Signature) -> Result<()> {
    let refuse = |token: &dyn quote::ToTokens, reason| Err(Error::new_spanned(token, reason));

    if let Some(token) = &sig.unsafety {
        refuse(
            token,
            "a kfunc is a safe function: its types say what the verifier checks",
        )?;
    }
    if let Some(token) = &sig.abi {
        refuse(
            token,
            "a kfunc is a Rust function: the attribute makes its C entry",
        )?;
    }
    if let Some(token) = &sig.asyncness {
        refuse(token, "a kfunc cannot be async")?;
    }
    if let Some(token) = &sig.constness {
        refuse(token, "a kfunc cannot be const")?;
    }
    if let Some(token) = &sig.variadic {
        refuse(token, "a kfunc cannot be variadic")?;
    }
    if !sig.ident.unraw().to_string().starts_with(PREFIX) {
        refuse(
            &sig.ident,
            "the name of a kfunc starts with `bpf_`: the kernel finds a kfunc by its bare name, \
             and any function of vmlinux has precedence",
        )?;
    }
    if !sig.generics.params.is_empty() {
        refuse(
            &sig.generics,
            "a kfunc cannot be generic; lifetimes are elided",
        )?;
    }
    Ok(())
}

/// Please see [`crate::kfunc`] for documentation.
pub(crate) fn kfunc(flags: Flags, mut function: ItemFn) -> Result<TokenStream> {
    check_signature(&function.sig)?;

    let parameters = function
        .sig
        .inputs
        .iter_mut()
        .map(Parameter::take)
        .collect::<Result<Vec<_>>>()?;
    if parameters.iter().map(Parameter::len).sum::<usize>() > MAX_ARGUMENTS {
        return Err(Error::new_spanned(
            &function.sig.inputs,
            format!("BPF passes at most {MAX_ARGUMENTS} arguments, memory and its size being two"),
        ));
    }

    let cfgs: Vec<_> = gather_cfg_attrs(&function.attrs).cloned().collect();
    let vis = &function.vis;
    let ident = &function.sig.ident;
    let name = ident.unraw().to_string();
    let given = &flags.0;
    let call = Ident::new("call", Span::mixed_site());

    let ret = match &function.sig.output {
        ReturnType::Default => quote!(<() as ::kernel::bpf::Return>),
        ReturnType::Type(_, ty) => quote_spanned!(ty.span()=> <#ty as ::kernel::bpf::Return>),
    };
    let abi = parameters.iter().map(Parameter::abi);
    let convert = parameters.iter().map(|parameter| parameter.convert(&call));
    let prototype = parameters.iter().map(Parameter::prototype);
    let implied = parameters.iter().map(Parameter::flags);
    // All but the last, which alone may be implicit.
    let explicit = parameters
        .iter()
        .take(parameters.len().saturating_sub(1))
        .map(Parameter::flags);

    Ok(quote! {
        #function

        // A type of the same name, by which `kfunc_set!` knows kfuncs.
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(dead_code, non_camel_case_types)]
        #vis enum #ident {}

        #(#cfgs)*
        #[allow(non_local_definitions)]
        // SAFETY: This is the kfunc whose entry and prototype follow.
        unsafe impl ::kernel::bpf::Kfunc for #ident {
            const NAME: &'static str = #name;
            const FLAGS: u32 = 0 #(| ::kernel::bindings::#given)* #(| #implied)*;
        }

        #(#cfgs)*
        const _: () = {
            #(::core::assert!(
                #explicit & ::kernel::bindings::KF_IMPLICIT_ARGS == 0,
                "the calling program is the last parameter of a kfunc",
            );)*

            /// # Safety
            ///
            /// To be called by BPF programs only, as the verifier lets them.
            #[export_name = #name]
            unsafe extern "C" fn entry(#(#abi),*) -> #ret::Abi {
                // SAFETY: This is the entry of a kfunc, and `call` is dropped with its frame.
                let #call = unsafe { ::kernel::bpf::Call::begin() };
                #ret::into_abi(#ident(#(#convert),*))
            }

            #[cfg(CONFIG_DEBUG_INFO_BTF)]
            const PROTOTYPE: &[&str] = &[#ret::TYPE, "\0", #name, "\0", #(#prototype,)* "\0"];

            #[cfg(CONFIG_DEBUG_INFO_BTF)]
            #[link_section = ".BTF_kfuncs"]
            #[used(compiler)]
            static TEXT: [u8; ::kernel::bpf::prototype::len(PROTOTYPE)] =
                ::kernel::bpf::prototype::concat(PROTOTYPE);
        };
    })
}

/// The input of `kfunc_set!`.
pub(crate) struct Set {
    attrs: Vec<Attribute>,
    vis: Visibility,
    name: Ident,
    hooks: Vec<Ident>,
    except: Vec<Ident>,
    kfuncs: Vec<Path>,
}

syn::custom_keyword!(except);

impl Parse for Set {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        input.parse::<Token![static]>()?;
        let name: Ident = input.parse()?;
        input.parse::<Token![:]>()?;
        let hooks;
        bracketed!(hooks in input);
        let except = if input.parse::<Option<except>>()?.is_some() {
            let kinds;
            bracketed!(kinds in input);
            Punctuated::<Ident, Token![,]>::parse_terminated(&kinds)?
                .into_iter()
                .collect()
        } else {
            Vec::new()
        };
        input.parse::<Token![=]>()?;
        let kfuncs;
        bracketed!(kfuncs in input);
        input.parse::<Token![;]>()?;

        let set = Self {
            attrs,
            vis,
            hooks: Punctuated::<Ident, Token![,]>::parse_terminated(&hooks)?
                .into_iter()
                .collect(),
            except,
            kfuncs: Punctuated::<Path, Token![,]>::parse_terminated(&kfuncs)?
                .into_iter()
                .collect(),
            name,
        };
        if set.hooks.is_empty() {
            return Err(Error::new_spanned(&set.name, "a kfunc set names its hooks"));
        }
        if set.kfuncs.is_empty() {
            return Err(Error::new_spanned(&set.name, "a kfunc set lists kfuncs"));
        }
        Ok(set)
    }
}

/// Numbers the symbols of kfuncs in sets, which must differ within an object.
static SYMBOLS: AtomicUsize = AtomicUsize::new(0);

/// The name of the crate, to tell its sets from those of others in vmlinux.
fn crate_name() -> String {
    let file = std::env::var("RUST_MODFILE").unwrap_or_default();
    let name = file.rsplit('/').next().unwrap_or_default();
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// Please see [`crate::kfunc_set`] for documentation.
pub(crate) fn kfunc_set(set: Set) -> Result<TokenStream> {
    let Set {
        attrs,
        vis,
        name,
        hooks,
        except,
        kfuncs,
    } = &set;
    let cfgs: Vec<_> = gather_cfg_attrs(attrs).collect();
    let len = kfuncs.len();
    let plain_name = name.unraw().to_string();
    let symbol = format!("__BTF_ID__set8__{}_{plain_name}", crate_name());
    let c_name = CString::new(plain_name).map_err(|e| Error::new_spanned(name, e))?;
    let c_name = Literal::c_string(&c_name);

    // What `BTF_KFUNCS_START()`, `BTF_ID_FLAGS()` and `BTF_KFUNCS_END()` make in C.
    let mut asm = format!(
        ".pushsection .BTF_ids, \"a\"\n\
         .balign 4\n\
         .local {symbol}\n\
         {symbol}:\n\
         .long 0\n\
         .long {{}}\n"
    );
    let mut names = Vec::new();
    for path in kfuncs {
        let kfunc = path
            .segments
            .last()
            .expect("paths have segments")
            .ident
            .unraw();
        let id = SYMBOLS.fetch_add(1, Ordering::Relaxed);
        asm += &format!(
            ".local __BTF_ID__func__{kfunc}__{id}\n\
             .type __BTF_ID__func__{kfunc}__{id}, STT_OBJECT\n\
             .size __BTF_ID__func__{kfunc}__{id}, 4\n\
             __BTF_ID__func__{kfunc}__{id}:\n\
             .long 0\n\
             .long {{}}\n"
        );
        names.push(kfunc.to_string());
    }
    asm += &format!(".size {symbol}, . - {symbol}\n.popsection\n");

    let hook_types: Vec<_> = hooks
        .iter()
        .map(|hook| quote_spanned!(hook.span()=> ::kernel::bpf::hook::#hook))
        .collect();
    let claims = hooks.iter().zip(&hook_types).map(|(hook, ty)| {
        quote_spanned! {hook.span()=>
            #(#cfgs)*
            impl ::kernel::bpf::hook::OneSetPerHook<#ty> for crate::LocalModule {}
        }
    });
    let own_names = kfuncs.iter().zip(&names).map(|(path, name)| {
        quote_spanned! {path.span()=>
            ::core::assert!(
                ::kernel::bpf::prototype::same(<#path as ::kernel::bpf::Kfunc>::NAME, #name),
                "a kfunc is listed by its own name",
            );
        }
    });
    let ids = Ident::new("ids", Span::mixed_site());
    let filter = if except.is_empty() {
        quote!(::core::option::Option::None)
    } else {
        let kinds = except
            .iter()
            .map(|kind| quote_spanned!(kind.span()=> ::kernel::bpf::hook::#kind));
        quote! {{
            /// # Safety
            ///
            /// `prog` points to a program.
            unsafe extern "C" fn filter(
                prog: *const ::kernel::bindings::bpf_prog,
                kfunc: u32,
            ) -> ::kernel::ffi::c_int {
                const EXCEPT: &[::kernel::bindings::bpf_attach_type] =
                    &[#(<#kinds as ::kernel::bpf::hook::Kind>::ATTACH_TYPE),*];

                // SAFETY: By the safety requirements.
                unsafe { #name.filter(EXCEPT, prog, kfunc) }
            }

            ::core::option::Option::Some(filter)
        }}
    };

    Ok(quote! {
        #(#attrs)*
        #vis static #name: ::kernel::bpf::KfuncSet = {
            #[cfg(CONFIG_DEBUG_INFO_BTF)]
            let #ids = {
                extern "C" {
                    #[link_name = #symbol]
                    static IDS: ::kernel::types::Opaque<::kernel::bindings::btf_id_set8>;
                }

                // SAFETY: Only the address is taken.
                unsafe { IDS.get() }
            };
            #[cfg(not(CONFIG_DEBUG_INFO_BTF))]
            let #ids = ::core::ptr::null_mut();

            // SAFETY: The set is laid down below. That there is no other set for one of its hooks
            // is what `OneSetPerHook` is implemented for.
            unsafe {
                ::kernel::bpf::KfuncSet::new(
                    #c_name,
                    <crate::LocalModule as ::kernel::ModuleMetadata>::NAME,
                    ::kernel::module::this_module::<crate::LocalModule>(),
                    &[#(<#hook_types as ::kernel::bpf::Hook>::PROGRAM_TYPE),*],
                    #ids,
                    #len,
                    #filter,
                )
            }
        };

        #(#claims)*

        #(#cfgs)*
        const _: () = { #(#own_names)* };

        #(#cfgs)*
        #[cfg(CONFIG_DEBUG_INFO_BTF)]
        ::core::arch::global_asm!(
            #asm,
            const ::kernel::bindings::BTF_SET8_KFUNCS,
            #(const <#kfuncs as ::kernel::bpf::Kfunc>::FLAGS,)*
        );
    })
}
