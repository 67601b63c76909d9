// What both arrays are built of: the rule of a register of limited width, and a pipelined multiplier.

// ov(value): docs/numerics.md (9) to (11). Keep the low bits, or go to the end of the range that was passed.
module bring_in #(
    parameter VALUE_BITS = 33,
    parameter BITS = 32,
    parameter SATURATE = 0
) (
    input  signed [VALUE_BITS-1:0] value,
    output signed [BITS-1:0]       held,
    output                         overflow
);
    generate
        if (VALUE_BITS > BITS) begin : narrower
            // The value fits when all bits above the register's sign bit are copies of it.
            assign overflow = value[VALUE_BITS-1:BITS-1] != {(VALUE_BITS-BITS+1){value[VALUE_BITS-1]}};
            assign held = (SATURATE != 0 && overflow)
                ? {value[VALUE_BITS-1], {(BITS-1){~value[VALUE_BITS-1]}}}
                : value[BITS-1:0];
        end else begin : wide_enough
            assign overflow = 1'b0;
            assign held = value;
        end
    endgenerate
endmodule

// ov(register + term): the sum is made one bit wider than either, then brought in.
module add_into #(
    parameter BITS = 32,
    parameter TERM_BITS = 16,
    parameter SATURATE = 0
) (
    input  signed [BITS-1:0]      register,
    input  signed [TERM_BITS-1:0] term,
    output signed [BITS-1:0]      held,
    output                        overflow
);
    localparam SUM_BITS = (BITS > TERM_BITS ? BITS : TERM_BITS) + 1;
    wire signed [SUM_BITS-1:0] sum = register + term;
    bring_in #(.VALUE_BITS(SUM_BITS), .BITS(BITS), .SATURATE(SATURATE)) rule (
        .value(sum), .held(held), .overflow(overflow)
    );
endmodule

// weight * activation, rounded by docs/numerics.md (13a), LATENCY - 1 clock edges later.
module multiplier #(
    parameter WEIGHT_BITS = 8,
    parameter ACTIVATION_BITS = 8,
    parameter LATENCY = 1,
    parameter SHIFT = 0,
    parameter RULE = 0  // 0: floor, 1: half_up, 2: toward_zero, 3: half_even
) (
    input                                               clock,
    input                                               clear,
    input  signed [WEIGHT_BITS-1:0]                     weight,
    input  signed [ACTIVATION_BITS-1:0]                 activation,
    output signed [WEIGHT_BITS+ACTIVATION_BITS-1:0]     product
);
    localparam BITS = WEIGHT_BITS + ACTIVATION_BITS;
    wire signed [BITS-1:0] exact = weight * activation;
    wire signed [BITS-1:0] made;
    generate
        if (SHIFT == 0) begin : whole
            assign made = exact;
        end else begin : rounded
            // One spare bit above the product and above the shift, for the bias that the rule adds before the floor.
            localparam WIDE = (BITS > SHIFT ? BITS : SHIFT) + 2;
            wire signed [WIDE-1:0] half = {{(WIDE-1){1'b0}}, 1'b1} << (SHIFT - 1);
            wire signed [WIDE-1:0] ones = ({{(WIDE-1){1'b0}}, 1'b1} << SHIFT) - 1;
            wire signed [WIDE-1:0] value = exact;
            wire odd = value[SHIFT];
            wire signed [WIDE-1:0] bias =
                RULE == 1 ? half :
                RULE == 2 ? (value[WIDE-1] ? ones : {WIDE{1'b0}}) :
                RULE == 3 ? half - (odd ? {WIDE{1'b0}} : {{(WIDE-1){1'b0}}, 1'b1}) :
                {WIDE{1'b0}};
            wire signed [WIDE-1:0] biased = value + bias;
            wire signed [WIDE-1:0] shifted = biased >>> SHIFT;
            assign made = shifted[BITS-1:0];
        end
        if (LATENCY == 1) begin : direct
            assign product = made;
        end else begin : pipelined
            reg signed [BITS-1:0] stage [0:LATENCY-2];
            integer s;
            always @(posedge clock) begin
                stage[0] <= clear ? {BITS{1'b0}} : made;
                for (s = 1; s < LATENCY - 1; s = s + 1) stage[s] <= clear ? {BITS{1'b0}} : stage[s-1];
            end
            assign product = stage[LATENCY-2];
        end
    endgenerate
endmodule
