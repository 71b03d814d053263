// A native addon for Node-API, whose stable ABI is declared here so that no headers of node are needed.
#include <stdint.h>
typedef struct env *napi_env;
typedef struct value *napi_value;
typedef struct info *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
int napi_get_cb_info(napi_env, napi_callback_info, uintptr_t *count, napi_value *arguments, napi_value *self, void **data);
int napi_get_value_int32(napi_env, napi_value, int32_t *);
int napi_create_int32(napi_env, int32_t, napi_value *);
int napi_create_function(napi_env, const char *name, uintptr_t length, napi_callback, void *data, napi_value *);
int napi_set_named_property(napi_env, napi_value object, const char *name, napi_value);

static _Thread_local int factor = 2;

static napi_value twice(napi_env env, napi_callback_info info) {
    uintptr_t count = 1;
    napi_value argument, result;
    int32_t number = 0;
    napi_get_cb_info(env, info, &count, &argument, 0, 0);
    napi_get_value_int32(env, argument, &number);
    napi_create_int32(env, factor * number, &result);
    return result;
}

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    napi_value function;
    napi_create_function(env, "twice", 5, twice, 0, &function);
    napi_set_named_property(env, exports, "twice", function);
    return exports;
}
