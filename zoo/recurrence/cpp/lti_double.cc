// lti.cc for double precision.

#define ZOO_DOUBLE
#include "lti.cc"
