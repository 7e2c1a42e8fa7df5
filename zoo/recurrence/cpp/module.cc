// The Python module zoo.recurrence._compiled: all kernels, for compiled.py to register with JAX.

#include <Python.h>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

// Every kernel: KERNEL(name).
#define ZOO_KERNELS(KERNEL)       \
  KERNEL(recurrence_states)       \
  KERNEL(recurrence_adjoint)      \
  KERNEL(lti_outputs)             \
  KERNEL(lti_gradients)           \
  KERNEL(selective_outputs)       \
  KERNEL(selective_gradients)     \
  KERNEL(attention_outputs)       \
  KERNEL(attention_gradients)     \
  KERNEL(lti_outputs_f64)         \
  KERNEL(lti_gradients_f64)       \
  KERNEL(selective_outputs_f64)   \
  KERNEL(selective_gradients_f64) \
  KERNEL(attention_outputs_f64)   \
  KERNEL(attention_gradients_f64) \
  KERNEL(few_products)            \
  KERNEL(selective_step)

// Those for CPUs that have tiles.
#if ZOO_TILES
#define ZOO_KERNELS_ON_TILES(KERNEL) \
  KERNEL(lti_outputs_tiles)          \
  KERNEL(lti_gradients_tiles)
#else
#define ZOO_KERNELS_ON_TILES(KERNEL)
#endif

#define ZOO_DECLARE(name) XLA_FFI_DECLARE_HANDLER_SYMBOL(name);
ZOO_KERNELS(ZOO_DECLARE)
ZOO_KERNELS_ON_TILES(ZOO_DECLARE)

namespace {

// Adds a handler to the dictionary; false where Python has raised an error.
bool Add(PyObject* handlers, const char* name, XLA_FFI_Handler* handler) {
  PyObject* capsule = PyCapsule_New(reinterpret_cast<void*>(handler), nullptr, nullptr);
  if (capsule == nullptr) return false;
  const bool added = PyDict_SetItemString(handlers, name, capsule) == 0;
  Py_DECREF(capsule);
  return added;
}

PyObject* Handlers(PyObject*, PyObject*) {
  PyObject* handlers = PyDict_New();
  if (handlers == nullptr) return nullptr;
#define ZOO_ADD(name)                \
  if (!Add(handlers, #name, name)) { \
    Py_DECREF(handlers);             \
    return nullptr;                  \
  }
  ZOO_KERNELS(ZOO_ADD)
#if ZOO_TILES
  if (zoo::HasTiles()) {
    ZOO_KERNELS_ON_TILES(ZOO_ADD)
  }
#endif
#undef ZOO_ADD
  return handlers;
}

PyMethodDef methods[] = {
    {"handlers", Handlers, METH_NOARGS, "The XLA FFI handlers, as capsules by name."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    "zoo.recurrence._compiled",
    "Kernels for CPUs.",
    -1,
    methods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__compiled() { return PyModule_Create(&module); }
