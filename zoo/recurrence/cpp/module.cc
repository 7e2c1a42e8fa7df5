// The Python module zoo.recurrence._compiled: all kernels, for compiled.py to register with JAX.

#include <Python.h>

#include "xla/ffi/api/ffi.h"

XLA_FFI_DECLARE_HANDLER_SYMBOL(recurrence_states);
XLA_FFI_DECLARE_HANDLER_SYMBOL(recurrence_adjoint);
XLA_FFI_DECLARE_HANDLER_SYMBOL(lti_outputs);
XLA_FFI_DECLARE_HANDLER_SYMBOL(lti_gradients);
XLA_FFI_DECLARE_HANDLER_SYMBOL(selective_outputs);
XLA_FFI_DECLARE_HANDLER_SYMBOL(selective_gradients);
XLA_FFI_DECLARE_HANDLER_SYMBOL(attention_outputs);
XLA_FFI_DECLARE_HANDLER_SYMBOL(attention_gradients);
XLA_FFI_DECLARE_HANDLER_SYMBOL(few_products);
XLA_FFI_DECLARE_HANDLER_SYMBOL(selective_step);

namespace {

PyObject* Capsule(XLA_FFI_Handler* handler) {
  return PyCapsule_New(reinterpret_cast<void*>(handler), nullptr, nullptr);
}

PyObject* Handlers(PyObject*, PyObject*) {
  return Py_BuildValue("{s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N}",        //
                       "recurrence_states", Capsule(recurrence_states),    //
                       "recurrence_adjoint", Capsule(recurrence_adjoint),  //
                       "lti_outputs", Capsule(lti_outputs),                //
                       "lti_gradients", Capsule(lti_gradients),            //
                       "selective_outputs", Capsule(selective_outputs),    //
                       "selective_gradients", Capsule(selective_gradients),  //
                       "attention_outputs", Capsule(attention_outputs),      //
                       "attention_gradients", Capsule(attention_gradients),
                       "few_products", Capsule(few_products),                //
                       "selective_step", Capsule(selective_step));
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
