// btf: ERROR: resolve_btfids: kfunc bpf_void_parameter has type 'void', which is neither a scalar nor a pointer
#[link_section = ".BTF_kfuncs"]
#[used(compiler)]
static TEXT: [u8; 34] = *b"int\0bpf_void_parameter\0void\0data\0\0";
